package pglocker_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/ismurov/pglocker"
)

// printingObserver stands for one that counts and measures.
type printingObserver struct{}

func (printingObserver) OperationStart(ctx context.Context, _ pglocker.OperationStart) context.Context {
	return ctx
}

func (printingObserver) OperationEnd(_ context.Context, end pglocker.OperationEnd) {
	fmt.Println(end.Operation, end.LockID, end.Err)
}

func (printingObserver) LockLost(lost pglocker.LockLost) {
	fmt.Println("lost", lost.LockID, lost.Err)
}

func ExampleObserver() {
	ctx := context.Background()

	locker, err := pglocker.NewWithMigrateDB(ctx, db, &pglocker.Config{Observer: printingObserver{}})
	if err != nil {
		log.Fatal(err)
	}

	err = locker.Do(ctx, "observed", time.Minute, 20*time.Second, func(context.Context) error { return nil })
	if err != nil {
		log.Fatal(err)
	}

	// It prints:
	// acquire observed <nil>
	// release observed <nil>
}
