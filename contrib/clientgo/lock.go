package pglockerclientgo

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/ismurov/pglocker"
)

var (
	// ErrNoIdentity: [New] was given no [pglocker.Config.Owner].
	ErrNoIdentity = errors.New("pglockerclientgo: no identity: Config.Owner is empty")
	// ErrLate: the database acknowledged a lease after more than a tenth of LeaseDuration. The elector would count
	// LeaseDuration from then, so it isn't told of a success. Its next try continues the lease.
	ErrLate = errors.New("pglockerclientgo: acknowledged late")
)

const (
	// getMax is how long Get waits for the database, at most.
	getMax = 5 * time.Second
	// lateAfter is the part of LeaseDuration that a grant or a renewal may take.
	lateAfter = 10
	// unknown is the identity of a holder that the table doesn't name.
	unknown = "(unknown)"
)

// locks is what errors of this package are about.
var locks = schema.GroupResource{Group: "pglocker", Resource: "locks"}

// Lock is a resourcelock.Interface. It serves one elector at a time. [Lock.Token] and [Lock.UntilLost] may be called at
// any time.
type Lock struct {
	locker       *pglocker.Locker
	id, identity string
	description  string
	safetyMargin time.Duration
	logger       *slog.Logger

	held held
}

var _ resourcelock.Interface = (*Lock)(nil)

// New returns a Lock for the election of a name, which is the id of a lock of pglocker. All candidates must use the same
// name and table.
//
// cfg.Owner is the identity of this candidate. It is what the others' OnNewLeader is told. cfg.Logger is told of the
// elector's events. The Lock makes a [pglocker.Locker] of its own from db and cfg. It need not be closed. The elector's
// requests use db: if the application may use up db's pool, give the Lock a handle of its own. It needs one connection.
//
// Errors: [ErrNoIdentity]; those of [pglocker.New]. A name that isn't a valid lock id, and a missing table, are told by
// the elector's first try, to klog.
func New(db *sql.DB, cfg *pglocker.Config, name string) (*Lock, error) {
	if cfg != nil && cfg.Owner == "" {
		return nil, ErrNoIdentity
	}

	locker, err := pglocker.New(db, cfg)
	if err != nil {
		return nil, err
	}

	l := &Lock{locker: locker, id: name, identity: cfg.Owner, safetyMargin: cfg.SafetyMargin, logger: cfg.Logger}

	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}

	table := pglocker.Config{Scheme: cfg.Scheme, Table: cfg.Table}
	table.SetDefault()
	l.description = table.Scheme + "." + table.Table + "/" + name

	return l, nil
}

// Identity returns [pglocker.Config.Owner].
func (l *Lock) Identity() string { return l.identity }

// Describe returns schema, table and name, as in "pglocker.lock_statuses/controller".
func (l *Lock) Describe() string { return l.description }

// RecordEvent tells [pglocker.Config.Logger] that this candidate became the leader, or stopped leading.
func (l *Lock) RecordEvent(event string) {
	l.logger.Info("pglockerclientgo: "+event, "identity", l.identity, "lock", l.description)
}

// Get returns the record that the row shows, and bytes that change with every grant, renewal and end of the lease. It
// waits for five seconds at most.
//
// The record has no holder if the lease was released or has ended, by the database's clock. If the table doesn't name
// the holder, it is "(unknown)". A holder that has this identity and isn't this Lock is shown with its
// whole [pglocker.LockStatus.Owner]: the elector must not take the record for its own. A row that is older than this
// Lock's lease, as a standby shows it that lags behind, is passed over: Get returns the lease.
//
// Errors: one that matches apierrors.IsNotFound, if there is no such row; those of [pglocker.Locker.GetLockStatus].
func (l *Lock) Get(ctx context.Context) (*resourcelock.LeaderElectionRecord, []byte, error) {
	ctx, cancel := context.WithTimeout(ctx, getMax)
	defer cancel()

	status, ours, err := l.look(ctx)
	if err != nil {
		return nil, nil, l.answer(err)
	}

	now, err := l.locker.DatabaseTime(ctx)
	if err != nil {
		return nil, nil, err
	}

	record := l.record(status, ours, now)

	raw, err := json.Marshal(struct {
		resourcelock.LeaderElectionRecord
		Generation int64
		ExpiresAt  time.Time
	}{record, status.Generation, status.ExpiresAt})

	return &record, raw, err
}

// look reads the row, and finds out whether its lease is that of this Lock. What is older than the lease isn't returned.
func (l *Lock) look(ctx context.Context) (status *pglocker.LockStatus, ours bool, err error) {
	status, err = l.locker.GetLockStatus(ctx, l.id)

	switch {
	case err == nil:
		status, ours = l.held.see(status)
	case errors.Is(err, pglocker.ErrLockNotFound):
		l.held.lose()
	}

	return status, ours, err
}

// record is what the elector is shown of a row.
func (l *Lock) record(status *pglocker.LockStatus, ours bool, now time.Time) resourcelock.LeaderElectionRecord {
	since := status.AcquiredAt
	if since.IsZero() {
		since = now
	}

	record := resourcelock.LeaderElectionRecord{
		LeaseDurationSeconds: max(int(math.Ceil(status.ExpiresAt.Sub(since).Seconds())), 1),
		RenewTime:            metav1.NewTime(status.AcquiredAt),
	}

	switch identity := identityOf(status.Owner); {
	case !status.HeldAt(now):
	case ours:
		record.HolderIdentity = l.identity
	case identity == "":
		record.HolderIdentity = unknown
	case identity == l.identity:
		record.HolderIdentity = status.Owner
	default:
		record.HolderIdentity = identity
	}

	return record
}

// identityOf is the [pglocker.Config.Owner] of an owner.
func identityOf(owner string) string {
	if i := strings.LastIndexByte(owner, '#'); i > 0 {
		return owner[:i]
	}

	return owner
}

// Create takes the lock if it is free. Errors: one that matches apierrors.IsAlreadyExists, if another holds it; those of
// [Lock.Update].
func (l *Lock) Create(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	err := l.Update(ctx, record)
	if apierrors.IsConflict(err) {
		return apierrors.NewAlreadyExists(locks, l.id)
	}

	return err
}

// Update renews the lease of this Lock for LeaseDurationSeconds. If there is none, Update takes the lock if it is free.
// It waits for a tenth of LeaseDurationSeconds at most. If the record has no holder, Update releases the lease, and
// returns nil if there is nothing to release.
//
// Of the record it uses HolderIdentity and LeaseDurationSeconds. Errors:
//
//   - One that matches apierrors.IsConflict, if another holds the lock, or the lock was granted to another or released
//     since this Lock was granted it.
//   - [ErrLate].
//   - One that matches apierrors.IsBadRequest, for another's identity.
//   - Those of [pglocker.Locker.AcquireLock], [pglocker.Locker.RefreshLock] and [pglocker.Locker.ReleaseLock]. If the
//     outcome is unknown, the next Get finds out.
func (l *Lock) Update(ctx context.Context, record resourcelock.LeaderElectionRecord) error {
	switch record.HolderIdentity {
	case l.identity:
		return l.answer(l.grant(ctx, time.Duration(record.LeaseDurationSeconds)*time.Second))
	case "":
		return l.release(ctx)
	}

	return apierrors.NewBadRequest(fmt.Sprintf("pglockerclientgo: %q can't hold a lock of %q", record.HolderIdentity, l.identity))
}

// grant renews the lease, or takes the lock.
func (l *Lock) grant(ctx context.Context, ttl time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, ttl/lateAfter)
	defer cancel()

	var (
		sent   = time.Now()
		status = l.held.lease()
		err    error
	)

	if status != nil {
		status, err = l.locker.RefreshLock(ctx, status, ttl)
	} else {
		status, err = l.locker.AcquireLock(ctx, l.id, ttl)
	}

	if err != nil {
		return err
	}

	lease := ttl
	if !status.AcquiredAt.IsZero() { // a trigger on the table may shorten leases
		lease = min(ttl, status.ExpiresAt.Sub(status.AcquiredAt))
	}

	took := -left(time.Now(), sent)
	late := took > ttl/lateAfter
	l.held.granted(status, sent.Add(lease-l.margin(ttl)), !late)

	if late {
		return fmt.Errorf("%w: after %s, of a lease of %s", ErrLate, took, ttl)
	}

	return nil
}

// margin is that of [pglocker.Config.SafetyMargin].
func (l *Lock) margin(ttl time.Duration) time.Duration {
	if l.safetyMargin > 0 {
		return l.safetyMargin
	}

	return min(ttl/10, time.Second)
}

// release releases the lease. A renewal whose caller has left may be carried out before: then it releases that, too.
func (l *Lock) release(ctx context.Context) error {
	for {
		status := l.held.end()
		if status == nil {
			return nil
		}

		err := l.locker.ReleaseLock(ctx, status)
		if !errors.Is(err, pglocker.ErrWrongGeneration) && !errors.Is(err, pglocker.ErrLockNotFound) {
			return err
		}

		if _, _, err := l.look(ctx); err != nil && !errors.Is(err, pglocker.ErrLockNotFound) {
			return err
		}
	}
}

// answer is an error as the elector knows it.
func (l *Lock) answer(err error) error {
	switch {
	case errors.Is(err, pglocker.ErrLockNotFound):
		return apierrors.NewNotFound(locks, l.id)
	case errors.Is(err, pglocker.ErrAlreadyLocked), errors.Is(err, pglocker.ErrWrongGeneration):
		return apierrors.NewConflict(locks, l.id, err)
	}

	return err
}
