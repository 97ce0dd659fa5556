package traffic

import (
	"context"
	"encoding/binary"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// place is where a client can be told to stop itself. A stop from outside would seldom hit it.
type place string

const (
	inCritical place = "critical" // between what was read and the commit
	inRenewer  place = "renewer"  // between a renewal and its reply
	inRequest  place = "request"  // between a request of another kind and its reply

	// beforeGuard is in a transaction that was begun earlier.
	beforeGuard place = "guard"
)

// pauser stops the process by SIGSTOP at the place where it was told to stop, once. The coordinator
// lets it go on.
type pauser struct {
	next atomic.Value
	stop func()
}

func newPauser() *pauser { return &pauser{stop: stopSelf} }

func (p *pauser) at(where place) { p.next.Store(where) }

// reached stops the process if it was told to stop here.
func (p *pauser) reached(where place) {
	if p.next.CompareAndSwap(where, place("")) {
		p.stop()
	}
}

// stopSelf stops the process, and returns when it goes on. The signal is for this thread: another
// thread might take one for the process, and this one would run on.
func stopSelf() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()

	_ = unix.Tgkill(unix.Getpid(), unix.Gettid(), syscall.SIGSTOP) // both are there
}

// sent stops the process if it was told to stop within a request, and a request was just written to
// the database.
func (p *pauser) sent(written []byte) {
	where, _ := p.next.Load().(place)
	if (where == inRequest || where == inRenewer) && executes(written) && asker() == where {
		p.reached(where)
	}
}

// executes reports whether messages of PostgreSQL's protocol make the server execute a
// statement of the library's. Startup, preparation and a driver's ping don't.
func executes(messages []byte) bool {
	const head = 5 // the kind, and the length of the rest with itself

	for len(messages) >= head {
		length := 1 + int(binary.BigEndian.Uint32(messages[1:head]))

		switch messages[0] {
		case 'E': // Execute
			return true
		case 'Q': // a simple Query
			return !strings.HasPrefix(string(messages[head:]), "-- ping")
		}

		if length > len(messages) {
			return false
		}

		messages = messages[length:]
	}

	return false
}

// asker is the part of the process that writes to the database: the library's renewer, another part
// of the library, or, where it is "", the application. The drivers write in the asking goroutine.
func asker() place {
	const (
		library = "github.com/ismurov/pglocker"
		deep    = 64
	)

	var (
		callers [deep]uintptr
		found   place
	)

	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers[:])])

	for more := true; more; {
		var frame runtime.Frame

		frame, more = frames.Next()

		switch {
		case strings.HasPrefix(frame.Function, library+"/internal/store.(*Store).Renew"):
			return inRenewer
		case strings.HasPrefix(frame.Function, library+"/internal/store."):
			found = inRequest
		}
	}

	return found
}

// watched is a connection to the database that tells the pauser what is sent.
type watched struct {
	net.Conn
	pauser *pauser
}

func (w watched) Write(b []byte) (int, error) {
	n, err := w.Conn.Write(b)
	if err == nil {
		w.pauser.sent(b)
	}

	return n, err
}

// dialFunc is how the drivers dial.
type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// watch wraps the connections of a dialer in watched.
func (p *pauser) watch(dial dialFunc) dialFunc {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}

		return watched{conn, p}, nil
	}
}
