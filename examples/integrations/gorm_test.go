package integrations_test

import (
	"context"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/ismurov/pglocker"
)

func TestGorm(t *testing.T) {
	t.Parallel()
	checkGorm(t, &gorm.Config{})
}

// TestGormPrepared: with PrepareStmt gorm wraps the transaction.
func TestGormPrepared(t *testing.T) {
	t.Parallel()
	checkGorm(t, &gorm.Config{PrepareStmt: true})
}

func checkGorm(t *testing.T, options *gorm.Config) {
	t.Helper()

	url := databases.NewDatabase(t).String()
	options.Logger = logger.Discard

	db, err := gorm.Open(postgres.Open(url), options)
	must(t, err)

	cfg := config(t)
	handle, err := db.DB()
	must(t, err)
	t.Cleanup(func() { must(t, handle.Close()) })

	locker, err := pglocker.New(handle, cfg)
	must(t, err)

	refusesOutside(t, locker, db.Statement.ConnPool)
	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			if err := pglocker.GuardTx(ctx, tx.Statement.ConnPool); err != nil {
				return err
			}

			err := tx.Table("reports").Where("name = ?", "nightly").Update("body", body).Error

			during()

			return err
		})
	})
}
