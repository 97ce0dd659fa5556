package pglocker_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// Many processes read a directory, and one at a time changes it.
func ExampleRWLock() {
	ctx := context.Background()

	files, err := locker.NewRWLock("files")
	if err != nil {
		log.Fatal(err)
	}

	first, err := files.RLock(ctx, time.Minute)
	if err != nil {
		log.Fatal(err)
	}

	second, err := files.RLock(ctx, time.Minute)
	if err != nil {
		log.Fatal(err)
	}

	_, err = files.TryLock(ctx, time.Minute)
	fmt.Println("a writer beside two readers:", !errors.Is(err, pglocker.ErrAlreadyLocked))

	// Two readers that both want to write would wait for each other.
	_, err = files.Lock(first.Context(), time.Minute)
	fmt.Println("an upgrade:", !errors.Is(err, pglocker.ErrUpgrade))

	if err := errors.Join(first.Unlock(ctx), second.Unlock(ctx)); err != nil {
		log.Fatal(err)
	}

	// It prints:
	// a writer beside two readers: false
	// an upgrade: false
}

// A writer goes on as a reader. No other writer changes the files in between.
func ExampleAccess_Downgrade() {
	ctx := context.Background()

	files, err := locker.NewRWLock("downgraded files")
	if err != nil {
		log.Fatal(err)
	}

	writer, err := files.Lock(ctx, time.Minute)
	if err != nil {
		log.Fatal(err)
	}

	fmt.Println("write")

	reader, err := writer.Downgrade(ctx)
	if err != nil {
		log.Fatal(err) // the lock was released
	}

	fmt.Println("read what was written, under a larger token:", reader.Token() > writer.Token())

	if err := reader.Unlock(ctx); err != nil {
		log.Fatal(err)
	}

	// It prints:
	// write
	// read what was written, under a larger token: true
}
