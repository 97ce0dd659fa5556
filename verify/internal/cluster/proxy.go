package cluster

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy is the network between one client and the database.
type Proxy struct {
	proxy *toxiproxy.Proxy

	// mu guards what follows.
	mu sync.Mutex
	// toxics counts those that were ever added, for their names.
	toxics int
	// broken are the names of the present toxics, one at most for each direction. Of several,
	// toxiproxy removes the wrong one from a connection that has just ended, and panics when the
	// next is added (as of 2.12).
	broken map[Direction]string
}

// Some toxics log by a logger of their own.
func init() { zerolog.SetGlobalLevel(zerolog.Disabled) }

func newProxy(name, upstream string) (*Proxy, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{
		proxy:  toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream),
		broken: make(map[Direction]string),
	}

	if err := p.proxy.Start(); err != nil {
		return nil, fmt.Errorf("cluster: proxy: %w", err)
	}

	return p, nil
}

// Direction is one way through a proxy.
type Direction string

const (
	// Requests go from the client to the database, Replies back.
	Requests Direction = "upstream"
	Replies  Direction = "downstream"
)

// Break breaks one direction, by one of toxiproxy's toxics, until [Proxy.Heal] or until the
// direction is broken in another way. attributes are the toxic's, as JSON.
func (p *Proxy) Break(toxic string, direction Direction, attributes string) error {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.heal(direction)

	p.toxics++
	name := strconv.Itoa(p.toxics)

	_, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name": "%s", "type": "%s", "stream": "%s", "toxicity": 1, "attributes": %s}`, name, toxic, direction, attributes)))
	if err != nil {
		return fmt.Errorf("cluster: %s: %w", toxic, err)
	}

	p.broken[direction] = name

	return nil
}

// Heal ends what Break began. Connections that a black hole has swallowed end.
func (p *Proxy) Heal() {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.heal(Requests)
	p.heal(Replies)
}

// heal ends what was done to one direction. p.mu is held.
func (p *Proxy) heal(direction Direction) {
	if name, ok := p.broken[direction]; ok {
		_ = p.proxy.Toxics.RemoveToxic(context.Background(), name) // it is there
		delete(p.broken, direction)
	}
}

func (p *Proxy) address() string { return p.proxy.Listen }
