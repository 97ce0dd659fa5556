package ui

import (
	"context"
	"net/http"
	"sync"
)

// servers are those that serve a handler. Shutdown of a server waits for its requests. So streams must end then.
type servers struct {
	mu    sync.Mutex
	known map[*http.Server]context.Context
}

// running returns a context that ends when the server of a request is shut down.
func (s *servers) running(r *http.Request) context.Context {
	server, _ := r.Context().Value(http.ServerContextKey).(*http.Server)
	if server == nil { // another kind of server
		return context.Background()
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	ctx, ok := s.known[server]
	if !ok {
		if s.known == nil {
			s.known = map[*http.Server]context.Context{}
		}

		var end context.CancelFunc

		ctx, end = context.WithCancel(context.Background())
		server.RegisterOnShutdown(end)

		s.known[server] = ctx
	}

	return ctx
}
