//go:build linux

package faulttest

import (
	"bufio"
	"context"
	"database/sql"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ismurov/pglocker"
	"github.com/ismurov/pglocker/internal/contract"
)

const (
	electionTTL  = time.Second
	electionName = "processes"
	urlVariable  = "PGLOCKER_TEST_URL"
)

// report is a line of a worker: it was called to lead, or asked itself whether it leads, and does.
type report struct {
	Token int64 `json:"token"`
	// Called: the function was called for the term.
	Called bool `json:"called,omitempty"`
	// At is in nanoseconds since 1970, before the question was asked. All workers have one clock.
	At int64 `json:"at"`
}

func init() { worker = electionWorker }

// electionWorker takes part in an election until its input ends.
func electionWorker(name string) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}

	db, err := sql.Open("pgx", os.Getenv(urlVariable))
	must(err)

	locker, err := pglocker.New(db, &pglocker.Config{Owner: name})
	must(err)

	election, err := locker.NewElection(electionName, electionTTL,
		pglocker.WithBackoff(10*time.Millisecond, 100*time.Millisecond))
	must(err)

	ctx, stop := context.WithCancel(context.Background())

	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)

		stop()
	}()

	var (
		mu    sync.Mutex
		token atomic.Int64 // of the present term
		out   = json.NewEncoder(os.Stdout)
	)

	tell := func(r report) {
		mu.Lock()
		defer mu.Unlock()

		must(out.Encode(r))
	}

	go func() {
		for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
			r := report{Token: token.Load(), At: time.Now().UnixNano()}
			if election.IsLeader(ctx) == nil && r.Token != 0 && token.Load() == r.Token {
				tell(r)
			}
		}
	}()

	_ = election.Run(ctx, func(ctx context.Context, term pglocker.Term) error {
		tell(report{Token: term.Token, Called: true, At: time.Now().UnixNano()})
		token.Store(term.Token)

		defer token.Store(0)

		<-ctx.Done()

		return nil
	})

	must(locker.Close(context.Background()))
}

// workers are the processes of an election.
type workers struct {
	url string
	// called yields each call of a leader's function.
	called chan call
	done   sync.WaitGroup

	// mu guards what follows.
	mu      sync.Mutex
	reports []report
}

// call is one call of a leader's function.
type call struct {
	by    *process
	token int64
	at    time.Time
}

// process is a worker under way.
type process struct {
	name  string
	cmd   *exec.Cmd
	input io.WriteCloser
}

// start starts a worker, which ends when the test does, however that ends.
func (w *workers) start(t *testing.T, name string) *process {
	t.Helper()

	self, err := os.Executable()
	contract.Must(t, err)

	p := &process{name: name, cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), workerVariable+"="+name, urlVariable+"="+w.url)
	p.cmd.Stderr = os.Stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}

	p.input, err = p.cmd.StdinPipe()
	contract.Must(t, err)

	output, err := p.cmd.StdoutPipe()
	contract.Must(t, err)
	contract.Must(t, p.cmd.Start())

	w.done.Go(func() {
		for lines := bufio.NewScanner(output); lines.Scan(); {
			var r report
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				continue // cut by a kill
			}

			w.mu.Lock()
			w.reports = append(w.reports, r)
			w.mu.Unlock()

			if r.Called {
				w.called <- call{p, r.Token, time.Unix(0, r.At)}
			}
		}

		_ = p.cmd.Wait() // it was killed, or told to end
	})

	return p
}

func (p *process) signal(t *testing.T, sig syscall.Signal) {
	t.Helper()
	contract.Must(t, p.cmd.Process.Signal(sig))
}
