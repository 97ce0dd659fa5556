package workload

import "time"

// Plan says how much is measured. A slice is the measured time of one contender in one
// round, after a warm-up.
type Plan struct {
	Name   string
	Rounds int
	// OtherRounds is how many rounds of W1 and W2 have the contenders that no reach depends
	// on; 0: all.
	OtherRounds int

	PairSlice  time.Duration // W1, W2 and W5
	PairWarmUp time.Duration
	TuneSlice  time.Duration // for each setting that is tried
	Goroutines []int         // W2

	HandOverSlice  time.Duration // W3
	HandOverRounds int
	Waiters        []int

	Held     []int         // W4
	HeldFor  time.Duration // a whole third of the TTL, after which renewals repeat
	HeldAlso []string      // the others that keep the largest number of locks alive

	SmallTable, LargeTable int // W5
	TableGoroutines        []int
	TableRounds            int
	UniformIDs             bool

	ChurnPairs int // W6

	FailedSlice  time.Duration // W7
	FailedRounds int

	FreshGoroutines []int // W8
	FreshRounds     int

	RecipeSlice  time.Duration // W9, of which one goroutine measures
	PermitSlice  time.Duration // W9, with many
	RecipeRounds int
	PruneRows    int // W9, 0: left out
	ListRows     int // W9, 0: left out

	SeparateClients []int // W10
	SeparateRounds  int

	ColdProcesses int // W11, in a round
	ColdRounds    int

	QueueProcesses int             // W12
	QueueHold      time.Duration   // how long each holds the lock
	QueueAfter     []time.Duration // from when on it is measured: the processes get to know each other
	QueueFor       time.Duration
}

// Full takes about fourteen minutes on two cores.
var Full = Plan{
	Name:   "full",
	Rounds: 3,

	PairSlice:  600 * time.Millisecond,
	PairWarmUp: 200 * time.Millisecond,
	TuneSlice:  300 * time.Millisecond,
	Goroutines: []int{64, 256, 1000, 4000},

	HandOverSlice:  700 * time.Millisecond,
	HandOverRounds: 3,
	Waiters:        []int{16, 64},

	Held:     []int{1000, 10_000, 100_000},
	HeldFor:  10 * time.Second,
	HeldAlso: []string{"floor", "redislock", "etcd"},

	SmallTable:      10_000,
	LargeTable:      10_000_000,
	TableGoroutines: []int{1, 256, 1000},
	TableRounds:     5,
	UniformIDs:      true,

	ChurnPairs: 5_000_000,

	FailedSlice:  500 * time.Millisecond,
	FailedRounds: 3,

	FreshGoroutines: []int{64, 256, 1000},
	FreshRounds:     5,

	RecipeSlice:  600 * time.Millisecond,
	PermitSlice:  3 * time.Second,
	RecipeRounds: 3,
	PruneRows:    1_000_000,
	ListRows:     10_000_000,

	SeparateClients: []int{16, 64},
	SeparateRounds:  5,

	ColdProcesses: 20,
	ColdRounds:    5,

	QueueProcesses: 200,
	QueueHold:      time.Second,
	QueueAfter:     []time.Duration{5 * time.Second, time.Minute},
	QueueFor:       40 * time.Second,
}

// Quick takes about a minute. It is too short for numbers, and shows whether something
// is badly off.
var Quick = Plan{
	Name:        "quick",
	Rounds:      2,
	OtherRounds: 1,

	PairSlice:  200 * time.Millisecond,
	PairWarmUp: 100 * time.Millisecond,
	TuneSlice:  100 * time.Millisecond,
	Goroutines: []int{64, 256, 1000},

	HandOverSlice:  300 * time.Millisecond,
	HandOverRounds: 2,
	Waiters:        []int{16},

	Held:    []int{10_000},
	HeldFor: 10 * time.Second,

	SmallTable:      10_000,
	LargeTable:      500_000,
	TableGoroutines: []int{1, 256},
	TableRounds:     3,

	ChurnPairs: 100_000,

	FailedSlice:  300 * time.Millisecond,
	FailedRounds: 1,

	FreshGoroutines: []int{64, 256, 1000},
	FreshRounds:     2,

	RecipeSlice:  200 * time.Millisecond,
	PermitSlice:  time.Second,
	RecipeRounds: 1,

	SeparateClients: []int{16, 64},
	SeparateRounds:  1,

	ColdProcesses: 5,
	ColdRounds:    2,

	QueueProcesses: 40,
	QueueHold:      100 * time.Millisecond,
	QueueAfter:     []time.Duration{time.Second, 6 * time.Second},
	QueueFor:       3 * time.Second,
}
