package main

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/bcrypt"
)

// passwords are the users of a page, and the hashes of their passwords. The nil pointer lets everyone in.
type passwords struct {
	hashes map[string][]byte
	// unknown is compared with for names that aren't there: they take as long as others.
	unknown []byte
	// comparing has room for the comparisons at one time. Each keeps a core busy for tens of milliseconds.
	comparing chan struct{}

	key [32]byte

	mu sync.Mutex
	// proven is what the last right password of a user was, hashed with the key: a page sends it with each request.
	proven map[string][]byte
}

// readPasswords reads a file of htpasswd. Its errors don't quote it.
func readPasswords(file string) (*passwords, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}

	p := &passwords{hashes: map[string][]byte{}, comparing: make(chan struct{}, 2), proven: map[string][]byte{}}
	_, _ = rand.Read(p.key[:]) // it never fails

	most := bcrypt.MinCost

	for n, line := range strings.Split(string(text), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}

		name, hash, ok := strings.Cut(line, ":")

		cost, err := bcrypt.Cost([]byte(hash))
		if !ok || name == "" || err != nil {
			return nil, fmt.Errorf("%s: line %d is not NAME:HASH with a hash of bcrypt: make it with htpasswd -B", file, n+1)
		}

		p.hashes[name], most = []byte(hash), max(most, cost)
	}

	if len(p.hashes) == 0 {
		return nil, fmt.Errorf("%s has no user", file)
	}

	p.unknown, err = bcrypt.GenerateFromPassword([]byte(rand.Text()), most)

	return p, err
}

// protect asks for a name and a password.
func (p *passwords) protect(next http.Handler) http.Handler {
	if p == nil {
		return next
	}

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, ok := r.BasicAuth()
		if !ok || !p.right(r, name, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="pglocker", charset="UTF-8"`)
			http.Error(w, "A name and a password are needed.", http.StatusUnauthorized)

			return
		}

		next.ServeHTTP(w, r)
	})
}

// user is who sends a request that [passwords.protect] has let in. Where nobody's password is asked for, a name in the
// request says nothing.
func (p *passwords) user(r *http.Request) string {
	if p == nil {
		return ""
	}

	name, _, _ := r.BasicAuth()

	return name
}

// right reports whether that is the user's password.
func (p *passwords) right(r *http.Request, name, password string) bool {
	mac := hmac.New(sha256.New, p.key[:])
	mac.Write([]byte(name + "\x00" + password))
	sum := mac.Sum(nil)

	p.mu.Lock()
	proven := hmac.Equal(sum, p.proven[name])
	p.mu.Unlock()

	if proven {
		return true
	}

	select {
	case p.comparing <- struct{}{}:
		defer func() { <-p.comparing }()
	case <-r.Context().Done():
		return false
	}

	hash, known := p.hashes[name]
	if !known {
		hash = p.unknown
	}

	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return false
	}

	p.mu.Lock()
	p.proven[name] = sum
	p.mu.Unlock()

	return true
}
