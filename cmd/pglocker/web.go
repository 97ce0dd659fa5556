package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/stdlib"
	"github.com/spf13/cobra"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/ui"
)

const (
	// webConnections is how many connections the page uses: two to read, and one to release.
	webConnections = 3
	// webGoodbye is how long requests may take that are under way when the command is ended.
	webGoodbye = 5 * time.Second
)

// web serves the page.
type web struct {
	*app
	listen       string
	title        string
	authFile     string
	hosts        []string
	allowRelease bool
}

func newWeb(a *app) *cobra.Command {
	w := &web{app: a}
	cmd := &cobra.Command{
		Use:     "web",
		GroupID: groupLook,
		Short:   "Show the locks on a web page",
		Long: `web serves a page that shows the locks, elections, semaphores and read-write locks, and who
held them when. It changes by itself. The page is read-only unless --allow-release is given.
It runs until SIGINT or SIGTERM, also while the database is down.

It listens on 127.0.0.1 only, unless --listen says otherwise, and has no TLS: put a proxy in
front of it, or reach it by ssh -L 7070:127.0.0.1:7070. On a loopback address it answers
requests for localhost and loopback addresses alone, and elsewhere also those for any IP address
and for the name of the machine. So no other site can read it by DNS. --host names others, such
as that of the proxy.

The file of --basic-auth-file has lines NAME:HASH as htpasswd -B writes them. Only bcrypt is
taken. --allow-release needs it, since every user of a machine reaches its loopback addresses.
Who releases a lock is written to the history with the reason.`,
		Example: `  pglocker web
  pglocker web --listen 127.0.0.1:8080 --title 'shop, production'
  pglocker web --allow-release --basic-auth-file /etc/pglocker/users --host locks.example.com`,
		Args: arguments(0, 0, "no arguments"),
		RunE: interruptible(func(ctx context.Context, _ []string) error { return w.run(ctx) }),
	}

	flags := cmd.Flags()
	flags.SortFlags = false
	flags.StringVar(&w.listen, "listen", "127.0.0.1:7070", "`address` to listen on")
	flags.StringVar(&w.title, "title", "", "`text` for the heading of each page, such as the name of the database")
	flags.BoolVar(&w.allowRelease, "allow-release", false, "let viewers release locks by force; needs --basic-auth-file")
	flags.StringVar(&w.authFile, "basic-auth-file", "", "`file` of those who may look, and of their passwords")
	flags.StringSliceVar(&w.hosts, "host", nil, "`name` by which browsers reach the page, besides its address; may be repeated")
	fromEnvironment(flags, "listen", "title", "basic-auth-file")

	return cmd
}

func (w *web) run(ctx context.Context) error {
	loopback, err := isLoopback(w.listen)
	if err != nil {
		return err
	}

	if w.allowRelease && w.authFile == "" {
		return usagef("--allow-release needs --basic-auth-file: without passwords every user of this machine could release locks")
	}

	var users *passwords

	if w.authFile != "" {
		if users, err = readPasswords(w.authFile); err != nil {
			return usageError{err, ""}
		}
	}

	config, err := w.connection.parse("web")
	if err != nil {
		return err
	}

	// It isn't asked yet: a page for the night begins while the database is down, too.
	db := stdlib.OpenDB(*config)
	defer db.Close()

	db.SetMaxOpenConns(webConnections)

	locker, err := pglocker.New(db, w.connection.config(w.logger()))
	if err != nil {
		return err
	}

	handler, err := ui.New(locker, ui.Options{
		AllowRelease: w.allowRelease, Title: w.title, Logger: w.logger(), User: users.user,
	})
	if err != nil {
		return err
	}
	defer handler.Close()

	listener, err := net.Listen("tcp", w.listen)
	if err != nil {
		return codeError{exitFailed, fmt.Errorf("can't listen on %s: %w", w.listen, err)}
	}

	if !loopback {
		w.warn(users != nil)
	}

	return w.serve(ctx, listener, checkHost(loopback, w.hosts, users.protect(handler)))
}

// warn says what it means to listen on an address that others reach.
func (w *web) warn(protected bool) {
	text := "anyone who can reach it sees all locks and their holders"
	if protected {
		text = "passwords and what the page shows go over the network unencrypted"
	}

	fmt.Fprintf(w.stderr, "pglocker: WARNING: %s is not a loopback address: %s.\n"+
		"Listen on 127.0.0.1 and put a proxy with TLS in front, or use ssh -L.\n", w.listen, text)
}

// newServer is a server that no client keeps busy by being slow. The page's streams set their own write deadlines.
func newServer(handler http.Handler) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 30 * time.Second, IdleTimeout: 2 * time.Minute,
	}
}

// serve serves until ctx ends, and then lets the requests under way end.
func (w *web) serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := newServer(handler)
	ended := make(chan error, 1)

	go func() { ended <- server.Serve(listener) }()

	if err := w.announce("http://" + reachable(listener.Addr()) + "/"); err != nil {
		_ = server.Close()

		return err
	}

	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}

	goodbye, cancel := context.WithTimeout(context.WithoutCancel(ctx), webGoodbye)
	defer cancel()

	if err := server.Shutdown(goodbye); errors.Is(err, context.DeadlineExceeded) {
		_ = server.Close()
	}

	return nil
}

// announce prints where the page is: with --listen 127.0.0.1:0 only it knows.
func (w *web) announce(address string) error {
	if w.json() {
		return w.printJSON(map[string]string{"address": address})
	}

	_, err := fmt.Fprintln(w.stdout, address)

	return err
}

// reachable is the address by which a browser on this machine reaches what listens on it.
func reachable(listening net.Addr) string {
	address, err := netip.ParseAddrPort(listening.String())

	switch {
	case err != nil || !address.Addr().IsUnspecified():
		return listening.String()
	case address.Addr().Is4():
		return fmt.Sprintf("127.0.0.1:%d", address.Port())
	default:
		return fmt.Sprintf("localhost:%d", address.Port())
	}
}

// isLoopback reports whether only this machine reaches an address to listen on.
func isLoopback(listen string) (bool, error) {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return false, usagef("--listen %s: it has the form HOST:PORT", listen)
	}

	return loopbackHost(host), nil
}

func loopbackHost(host string) bool {
	address, err := netip.ParseAddr(host)

	return strings.EqualFold(host, "localhost") || err == nil && address.Unmap().IsLoopback()
}

// checkHost refuses requests for other hosts. A page of another site may have its name lead to this address: its
// scripts could then read the answers, as if they were of that site. Nobody can have an IP address lead elsewhere.
func checkHost(loopback bool, hosts []string, next http.Handler) http.Handler {
	if name, err := os.Hostname(); err == nil && !loopback {
		hosts = append(slices.Clone(hosts), name)
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := r.Host
		if name, _, err := net.SplitHostPort(host); err == nil {
			host = name
		}

		host = strings.Trim(host, "[]")
		_, err := netip.ParseAddr(host)
		known := loopbackHost(host) || !loopback && err == nil ||
			slices.ContainsFunc(hosts, func(name string) bool { return strings.EqualFold(name, host) })

		if !known {
			http.Error(w, "This host isn't known here: see pglocker web --host.", http.StatusMisdirectedRequest)

			return
		}

		next.ServeHTTP(w, r)
	})
}
