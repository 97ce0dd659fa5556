// Verify attacks the promises of docs/guarantees.md: client processes take locks in every
// way there is while network, server and clients are broken in all the ways listed in
// internal/fault, and the oracles in internal/oracle judge the recorded history.
//
//	make verify
//	go run . [-seed N] [-only FAULT,...] [-duration D] [-strict] [-list]
//	go run . -long [-seed N] [-duration D] [-resume] [-table FILE]
//	go run . -ha [-seed N] [-only FAULT,...] [-duration D] [-list]
//	go run . -distributed [-seed N] [-only FAULT,...] [-duration D] [-list]
//	go run . -mutants [-seed N] [-only MUTANT,...]
//
// Its exit code is 1 if any promise was broken, or a run proves nothing. The history is then
// in failures/. With -strict it is 1, too, if a fault was skipped.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/ismurov/pglocker/verify/internal/cluster"
	"github.com/ismurov/pglocker/verify/internal/mutant"
	"github.com/ismurov/pglocker/verify/internal/patroni"
	"github.com/ismurov/pglocker/verify/internal/resource"
	"github.com/ismurov/pglocker/verify/internal/suite"
	"github.com/ismurov/pglocker/verify/internal/traffic"
)

func main() {
	// The program starts itself again for the processes that it needs.
	if len(os.Args) > 2 {
		switch os.Args[1] {
		case cluster.ClientRole:
			exit(traffic.Main(os.Args[2], os.Stdin))
		case cluster.ResourceRole:
			exit(resource.Main(os.Args[2], os.Args[3] == "true", os.Stdin, os.Stdout))
		case patroni.KeeperRole:
			exit(patroni.Keep(os.Stdin))
		}
	}

	exit(run())
}

func exit(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "verify:", err)
		os.Exit(1)
	}

	os.Exit(0)
}

var (
	// errViolated ends a run that found something.
	errViolated = errors.New("promises were broken, or runs could not be made or prove nothing: see failures/")
	// errNotRun ends a strict run that found nothing, but skipped something.
	errNotRun = errors.New("not everything was run, as -strict demands")
	// errInterrupted ends a run that was interrupted.
	errInterrupted = errors.New("interrupted")
)

func run() (err error) {
	seed := flag.Uint64("seed", 0, "what all randomness comes from; 0: a new one")
	only := flag.String("only", "", "comma-separated names of what to run, all by default")
	duration := flag.Duration("duration", 2*time.Minute, "how long to run, roughly")
	failures := flag.String("failures", "failures", "the folder for histories that show a violation")
	strict := flag.Bool("strict", false, "fail if anything was skipped because this machine lacks what it needs")
	list := flag.Bool("list", false, "list what there is to run")
	ha := flag.Bool("ha", false, "fail over, between servers of the job's own")
	distributed := flag.Bool("distributed", false, "break a distributed engine, on servers of the job's own")
	mutants := flag.Bool("mutants", false, "break the library on purpose, and see whether that is noticed")
	long := longFlags()
	flag.Parse()

	if *seed == 0 {
		*seed = uint64(rand.Uint32())
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	context.AfterFunc(ctx, stop) // the second interrupt ends it at once

	if *mutants {
		return runMutants(ctx, *only, *seed)
	}

	jobs := jobsOf(*seed)
	switch {
	case *ha:
		jobs = haJobs(*seed)
	case *distributed:
		jobs = distributedJobs(*seed)
	}

	if *list {
		for _, job := range jobs {
			fmt.Println(job.Name())
		}

		return nil
	}

	if *only != "" {
		names := strings.Split(*only, ",")
		jobs = slices.DeleteFunc(jobs, func(job suite.Job) bool { return !slices.Contains(names, job.Name()) })
	}

	if len(jobs) == 0 {
		return fmt.Errorf("nothing is called %q: see -list", *only)
	}

	folder, err := os.MkdirTemp("", "pglocker-verify-")
	if err != nil {
		return err
	}

	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()

	// The server's account has to be able to read its clock there.
	if err := os.Chmod(folder, 0o755); err != nil {
		return err
	}

	s := &suite.Suite{Folder: folder, Failures: *failures}
	defer func() { err = errors.Join(err, s.Close()) }()

	if long.on && (*only != "" || *ha || *distributed) {
		return errors.New("-long runs all faults on one server: it goes with none of -only, -ha and -distributed")
	}

	if long.on {
		return long.run(ctx, s, *seed, *duration, *strict)
	}

	fmt.Printf("seed %d\n", *seed)

	return runJobs(ctx, s, jobs, *seed, *duration, *strict)
}

// runMutants runs the suite on the mutants of the library that this module stands beside.
func runMutants(ctx context.Context, only string, seed uint64) error {
	mutants := mutant.All()

	if only != "" {
		names := strings.Split(only, ",")
		mutants = slices.DeleteFunc(mutants, func(m mutant.Mutant) bool { return !slices.Contains(names, m.Name) })
	}

	if len(mutants) == 0 {
		return fmt.Errorf("no mutant is called %q: see internal/mutant", only)
	}

	return mutant.Run(ctx, mutants, "..", seed, os.Stdout)
}
