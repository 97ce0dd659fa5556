package contract

import (
	"bytes"
	"sync"
)

// Page is what a logger writes on.
type Page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (p *Page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.text.Write(b)
}

func (p *Page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.text.String()
}
