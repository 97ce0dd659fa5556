package workload

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func init() {
	roles["obedient"] = func(_ context.Context, _ job, in io.Reader, out *json.Encoder) error {
		err := out.Encode(line{Ready: true})

		for lines := bufio.NewScanner(in); err == nil && lines.Scan(); {
			err = out.Encode(line{Count: &count{Sent: map[string]int{"try": 3}, Connections: 2}})
		}

		return err
	}
	roles["stubborn"] = func(_ context.Context, _ job, _ io.Reader, out *json.Encoder) error {
		if err := out.Encode(line{Ready: true}); err != nil {
			return err
		}

		select {}
	}
	roles["broken"] = func(context.Context, job, io.Reader, *json.Encoder) error { return errors.New("it is broken") }
	roles["limited"] = func(ctx context.Context, _ job, _ io.Reader, _ *json.Encoder) error {
		<-ctx.Done()

		return nil
	}
}

// TestMain is the program that the children are, too.
func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == ChildArg {
		if err := Child(os.Args[2], os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}

		return
	}

	os.Exit(m.Run())
}

func TestQueueEnds(t *testing.T) {
	t.Parallel()

	q, err := startQueue(t.Context(), 12, job{Role: "obedient", Limit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}

	for range 2 {
		counts, err := q.count()
		if err != nil || len(counts) != 12 || counts[11].Sent["try"] != 3 || counts[11].Connections != 2 {
			t.Fatalf("counts %v, %v", counts, err)
		}
	}

	if err := q.end(); err != nil {
		t.Error(err)
	}
}

// TestStubbornQueue: processes that don't end are killed.
func TestStubbornQueue(t *testing.T) {
	t.Parallel()

	q, err := startQueue(t.Context(), 2, job{Role: "stubborn", Limit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}

	q.grace = time.Millisecond

	if err := q.end(); err == nil || !strings.Contains(err.Error(), "was killed") {
		t.Error(err)
	}
}

// TestCancelledQueue: so are all when the benchmark is interrupted.
func TestCancelledQueue(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())

	q, err := startQueue(ctx, 2, job{Role: "stubborn", Limit: time.Minute})
	if err != nil {
		t.Fatal(err)
	}

	cancel()

	if _, err := q.count(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}

	if err := q.end(); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestBrokenQueue: the first process that fails ends the workload, and says why.
func TestBrokenQueue(t *testing.T) {
	t.Parallel()

	if _, err := startQueue(t.Context(), 3, job{Role: "broken", Limit: time.Minute}); err == nil || !strings.Contains(err.Error(), "it is broken") {
		t.Error(err)
	}
}

func TestLimitOfChild(t *testing.T) {
	t.Parallel()

	err := runChild(t.Context(), job{Role: "limited", Limit: time.Millisecond}, nil, func(line) { t.Error("it told something") })
	if err != nil {
		t.Error(err)
	}
}

func TestGaps(t *testing.T) {
	t.Parallel()

	granted := func(at int64) moment { return moment{At: at, Granted: true} }
	released := func(at int64) moment { return moment{At: at} }

	// The moments come from processes in any order. The grants at 10 and 90 don't count.
	gaps, err := gapsOf([]moment{released(30), granted(10), granted(90), granted(35), released(50), granted(52), released(80)}, 20, 60)
	if err != nil || len(gaps) != 2 || gaps[0] != 2 || gaps[1] != 5 {
		t.Errorf("gaps %v, %v", gaps, err)
	}

	if _, err := gapsOf([]moment{granted(10), granted(20), released(30), released(40)}, 0, 60); err == nil {
		t.Error("two hold the lock, and that is fine")
	}

	if _, err := gapsOf([]moment{granted(10), released(20)}, 0, 60); err == nil {
		t.Error("nothing was handed over, and that is fine")
	}
}

func TestWaitersConnections(t *testing.T) {
	t.Parallel()

	if got := waitersConnections([]count{{Connections: 1}, {Connections: 2}, {Connections: 9, Holds: true}}); got != 1.5 {
		t.Errorf("%v connections, want 1.5", got)
	}
}
