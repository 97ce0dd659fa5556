package pglocker

import "testing"

func TestSubjects(t *testing.T) {
	t.Parallel()

	for id, want := range map[string]Subject{
		"":                            {},
		"a:b":                         {Kind: KindLock, Name: "a:b"},
		"pglocker:election:a:b":       {Kind: KindElection, Name: "a:b"},
		"pglocker:semaphore:a:b:gate": {Kind: KindSemaphore, Name: "a:b"},
		"pglocker:semaphore:a:b:12":   {Kind: KindSemaphore, Name: "a:b"},
		"pglocker:rwlock:a:w":         {Kind: KindRWLock, Name: "a"},
		"pglocker:rwlock:a":           {Kind: KindRWLock},
		"pglocker:resign:a":           {Kind: KindInternal, Name: "resign:a"},
	} {
		want.LockID, want.Locks = id, 2
		if got := subjectOf(id, 2); got != want {
			t.Errorf("%q is %+v, want %+v", id, got, want)
		}
	}
}
