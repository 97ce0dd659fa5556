package pgtesting

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// relay is an HTTP server on 127.0.0.1 between the library that downloads and the
// repository. It adds what the library lacks: a context and progress.
type relay struct {
	repository string
	progress   io.Writer
	listener   net.Listener
	server     *http.Server
	client     *http.Client
	cancel     context.CancelFunc // ends the requests
	accepting  sync.WaitGroup     // the goroutine that accepts connections

	mu  sync.Mutex // guards err and the writes to progress
	err error      // of the repository, or ctx's cause
}

// startRelay starts a relay whose requests end with ctx. The caller closes it.
func startRelay(ctx context.Context, repository string, progress io.Writer) (*relay, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &relay{
		cancel:     cancel,
		repository: strings.TrimSuffix(repository, "/"),
		progress:   progress,
		listener:   listener,
		client:     &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true, ResponseHeaderTimeout: time.Minute}},
	}
	r.server = &http.Server{
		Handler:           r,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ReadHeaderTimeout: time.Minute,
	}
	// The library's client would keep connections, and their goroutines.
	r.server.SetKeepAlivesEnabled(false)
	r.accepting.Go(func() { _ = r.server.Serve(listener) })
	return r, nil
}

func (r *relay) url() string { return "http://" + r.listener.Addr().String() }

// close waits for all goroutines of the relay and returns the errors of the repository, which
// the library does not.
func (r *relay) close() error {
	r.cancel()
	_ = r.server.Shutdown(context.Background()) // waits for the handlers
	r.accepting.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

func (r *relay) ServeHTTP(w http.ResponseWriter, incoming *http.Request) {
	r.mu.Lock()
	defer r.mu.Unlock()
	ctx := incoming.Context()
	if err := r.pass(ctx, w, incoming.URL.Path); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		r.err = errors.Join(r.err, err)
		panic(http.ErrAbortHandler) // or the library would take a part for the whole
	}
}

func (r *relay) pass(ctx context.Context, w http.ResponseWriter, path string) error {
	outgoing, err := http.NewRequestWithContext(ctx, http.MethodGet, r.repository+path, nil)
	if err != nil {
		return err
	}
	response, err := r.client.Do(outgoing)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		w.WriteHeader(response.StatusCode)
		// A repository need not have checksums.
		if strings.HasSuffix(path, ".sha256") && response.StatusCode == http.StatusNotFound {
			return nil
		}
		r.err = errors.Join(r.err, fmt.Errorf("%s: %s", outgoing.URL.Redacted(), response.Status))
		return nil
	}
	if response.ContentLength >= 0 {
		w.Header().Set("Content-Length", fmt.Sprint(response.ContentLength))
	}
	shown := &progressReader{from: response.Body, total: response.ContentLength, to: r.progress, next: progressStep}
	if _, err := io.Copy(w, shown); err != nil {
		return err
	}
	return nil
}

// progressStep is how many bytes there are between two lines of progress.
const progressStep = 4 << 20

type progressReader struct {
	from  io.Reader
	total int64 // below 0: unknown
	to    io.Writer
	read  int64
	next  int64
}

func (p *progressReader) Read(buf []byte) (int, error) {
	n, err := p.from.Read(buf)
	p.read += int64(n)
	if p.read >= p.next {
		p.next = p.read - p.read%progressStep + progressStep
		if p.total > 0 {
			fmt.Fprintf(p.to, "downloaded %d of %d MB\n", p.read>>20, p.total>>20)
		} else {
			fmt.Fprintf(p.to, "downloaded %d MB\n", p.read>>20)
		}
	}
	return n, err
}
