package cluster

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"

	toxiproxy "github.com/Shopify/toxiproxy/v2"
	"github.com/rs/zerolog"
)

// Proxy is the network between one client and the database.
type Proxy struct {
	proxy *toxiproxy.Proxy
	// toxics counts those that were ever added, for their names.
	toxics atomic.Int64
}

// Some toxics log by a logger of their own.
func init() { zerolog.SetGlobalLevel(zerolog.Disabled) }

func newProxy(name, upstream string) (*Proxy, error) {
	server := toxiproxy.NewServer(toxiproxy.NewMetricsContainer(nil), zerolog.Nop())
	p := &Proxy{proxy: toxiproxy.NewProxy(server, name, "127.0.0.1:0", upstream)}

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

// Break spoils one direction, by one of toxiproxy's toxics, until [Proxy.Heal].
// attributes are those of the toxic, as JSON.
func (p *Proxy) Break(toxic string, direction Direction, attributes string) error {
	// In a mixture two faults may break the same client in the same way.
	_, err := p.proxy.Toxics.AddToxicJson(strings.NewReader(fmt.Sprintf(
		`{"name": "%d", "type": "%s", "stream": "%s", "toxicity": 1, "attributes": %s}`,
		p.toxics.Add(1), toxic, direction, attributes)))
	if err != nil {
		return fmt.Errorf("cluster: %s: %w", toxic, err)
	}

	return nil
}

// Heal ends what Break has begun. Connections that a black hole has swallowed end.
func (p *Proxy) Heal() {
	p.proxy.Toxics.ResetToxics(context.Background())
}

func (p *Proxy) address() string { return p.proxy.Listen }
