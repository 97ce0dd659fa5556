package main

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"
)

// served is the command `web` as a process.
type served struct {
	t       *testing.T
	cmd     *exec.Cmd
	address string
	stderr  *strings.Builder
}

func (b *bed) serve(args ...string) *served {
	b.t.Helper()

	s := &served{t: b.t, cmd: b.command(append([]string{"web", "--listen", "127.0.0.1:0"}, args...)...), stderr: new(strings.Builder)}
	s.cmd.Stderr = s.stderr

	out, err := s.cmd.StdoutPipe()
	must(b.t, err)
	must(b.t, s.cmd.Start())
	b.t.Cleanup(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})

	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		_ = s.cmd.Wait()
		b.t.Fatalf("%v: %s", err, s.stderr)
	}

	s.address = strings.TrimSpace(line)

	return s
}

// ask sends a request for a host, as a user with a password.
func (s *served) ask(method, page, host, user, password string, form url.Values) (status int, body string) {
	s.t.Helper()

	request, err := http.NewRequestWithContext(s.t.Context(), method, s.address+page, strings.NewReader(form.Encode()))
	must(s.t, err)

	if host != "" {
		request.Host = host
	}

	if user != "" {
		request.SetBasicAuth(user, password)
	}

	if form != nil {
		request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		request.Header.Set("Sec-Fetch-Site", "same-origin")
	}

	response, err := http.DefaultClient.Do(request)
	must(s.t, err)

	defer response.Body.Close()

	text, err := io.ReadAll(response.Body)
	must(s.t, err)

	return response.StatusCode, string(text)
}

// refuses checks that requests for these hosts aren't answered.
func (s *served) refuses(hosts ...string) {
	s.t.Helper()

	for _, host := range hosts {
		if status, body := s.ask(http.MethodGet, "locks", host, "", "", nil); status != http.StatusMisdirectedRequest || strings.Contains(body, "a job") {
			s.t.Errorf("for the host %q: %d", host, status)
		}
	}
}

// TestWeb: it shows the locks to this machine alone, and ends with its streams when it is asked to.
func TestWeb(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	b.hold("a job")

	s := b.serve("--title", "the shop")

	for _, host := range []string{"", "localhost", "localhost:7070", "127.0.0.1", "[::1]:80"} {
		if status, body := s.ask(http.MethodGet, "locks", host, "", "", nil); status != http.StatusOK || !strings.Contains(body, "a job") ||
			!strings.Contains(body, "the shop") || !strings.Contains(body, "Read-only") {
			t.Errorf("for the host %q: %d\n%s", host, status, body)
		}
	}

	// A name that another site has lead here.
	s.refuses("evil.example", "127.0.0.1.evil.example:80", "localhost.", "10.0.0.1")

	stream, err := http.Get(s.address + "events?page=locks") //nolint:noctx // it ends with the process
	must(t, err)

	defer stream.Body.Close()

	must(t, s.cmd.Process.Signal(syscall.SIGTERM))

	if _, err := io.ReadAll(stream.Body); err != nil {
		t.Errorf("the stream ends with %v", err)
	}

	if err := s.cmd.Wait(); err != nil {
		t.Errorf("it ends with %v: %s", err, s.stderr)
	}

	if s.stderr.Len() > 0 {
		t.Errorf("it says %s", s.stderr)
	}
}

// TestWebPasswords: nothing is served without one, and the history says who has released a lock.
func TestWebPasswords(t *testing.T) {
	t.Parallel()

	hash, err := bcrypt.GenerateFromPassword([]byte("secret"), bcrypt.MinCost)
	must(t, err)

	file := filepath.Join(t.TempDir(), "users")
	// htpasswd names its variant of bcrypt 2y.
	must(t, os.WriteFile(file, []byte("# those on call\n\nalice:"+strings.Replace(string(hash), "$2a$", "$2y$", 1)+"\n"), 0o600))

	b := newBed(t)
	lock := b.hold("a job")
	s := b.serve("--allow-release", "--basic-auth-file", file, "--host", "locks.example.com")

	for _, who := range [][2]string{{"", ""}, {"alice", "wrong"}, {"alice", ""}, {"bob", "secret"}, {"", "secret"}} {
		for _, page := range []string{"", "locks", "static/app.js", "events?page=locks"} {
			if status, body := s.ask(http.MethodGet, page, "", who[0], who[1], nil); status != http.StatusUnauthorized || strings.Contains(body, "job") {
				t.Errorf("%q to %q: %d", page, who, status)
			}
		}
	}

	for range 2 { // the second is remembered
		if status, body := s.ask(http.MethodGet, "locks", "locks.example.com", "alice", "secret", nil); status != http.StatusOK || !strings.Contains(body, "a job") {
			t.Errorf("to alice: %d", status)
		}
	}

	form := url.Values{"id": {"a job"}, "token": {fmt.Sprint(lock.Token())}, "reason": {"stuck"}}

	if status, body := s.ask(http.MethodPost, "release", "", "alice", "secret", form); status != http.StatusOK || !strings.Contains(body, "stuck (by alice)") {
		t.Errorf("released: %d\n%s", status, body)
	}

	for text, lines := range map[string]string{
		"line 1 is not":   "alice:{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=\n",
		"line 2 is not":   "alice:" + string(hash) + "\nbob\n",
		"has no user":     "# nobody\n",
		"no such file":    "",
		"can't listen on": "-",
	} {
		args := []string{"web", "--listen", "127.0.0.1:0", "--basic-auth-file", file + ".bad"}

		switch lines {
		case "":
			_ = os.Remove(file + ".bad")
		case "-":
			args = []string{"web", "--listen", "192.0.2.1:1"}
		default:
			must(t, os.WriteFile(file+".bad", []byte(lines), 0o600))
		}

		code := exitUsage
		if lines == "-" {
			code = exitFailed
		}

		if o := b.fails(code, []string{text}, args...); strings.Contains(o.stderr, "$2a$") || strings.Contains(o.stderr, "fEqN") {
			t.Errorf("it prints a hash: %s", o.stderr)
		}
	}
}

// TestWebForgedName: a name counts only with its password.
func TestWebForgedName(t *testing.T) {
	t.Parallel()

	request := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/release", nil)
	request.SetBasicAuth("alice", "")

	if name := (*passwords)(nil).user(request); name != "" {
		t.Errorf("without passwords the history says that %q has released a lock", name)
	}

	if name := new(passwords).user(request); name != "alice" {
		t.Errorf("with passwords the history says that %q has released a lock", name)
	}
}

// TestWebTimeouts: a client that stops reading or writing doesn't keep its connection.
func TestWebTimeouts(t *testing.T) {
	t.Parallel()

	s := newServer(nil)
	for what, timeout := range map[string]time.Duration{
		"a header": s.ReadHeaderTimeout, "a request": s.ReadTimeout, "an answer": s.WriteTimeout, "the next request": s.IdleTimeout,
	} {
		if timeout <= 0 {
			t.Errorf("%s may take for ever", what)
		}
	}
}

// TestWebElsewhere: what others reach is warned of, isn't read by DNS, and lets nobody release without a password.
func TestWebElsewhere(t *testing.T) {
	t.Parallel()

	b := newBed(t)
	for _, listen := range []string{"127.0.0.1:0", "0.0.0.0:0"} {
		b.fails(exitUsage, []string{"needs --basic-auth-file"}, "web", "--listen", listen, "--allow-release")
	}

	b.fails(exitUsage, []string{"HOST:PORT"}, "web", "--listen", "7070")

	b.env = append(b.env, "PGLOCKER_DSN=postgres://127.0.0.1:1/none") // it starts without a database
	s := b.serve("--listen", "0.0.0.0:0", "--host", "locks.example.com")

	machine, err := os.Hostname()
	must(t, err)

	for _, host := range []string{"", "localhost", "10.0.0.1:80", "[2001:db8::1]:80", machine, "Locks.Example.com"} {
		if status, body := s.ask(http.MethodGet, "", host, "", "", nil); status != http.StatusServiceUnavailable || !strings.Contains(body, "answer") {
			t.Errorf("for the host %q without a database: %d\n%s", host, status, body)
		}
	}

	for _, address := range []string{s.address, b.serve("--listen", ":0").address} {
		if !strings.HasPrefix(address, "http://127.0.0.1:") && !strings.HasPrefix(address, "http://localhost:") {
			t.Errorf("it names the address %s", address)
		}
	}

	s.refuses("any.example", "10.0.0.1.any.example")

	must(t, s.cmd.Process.Signal(os.Interrupt))
	_ = s.cmd.Wait()

	if !strings.Contains(s.stderr.String(), "WARNING: 0.0.0.0:0 is not a loopback address") {
		t.Errorf("it says %s", s.stderr)
	}
}
