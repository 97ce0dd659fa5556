package integrations_test

import (
	"context"
	"database/sql"
	"testing"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/logger"

	"github.com/ismurov/pglocker"
)

func TestGorm(t *testing.T) {
	t.Parallel()
	checkGorm(t, &gorm.Config{}, func(ctx context.Context, tx *gorm.DB) error {
		return pglocker.Guard(ctx, tx.Statement.ConnPool.(*sql.Tx))
	})
}

// TestGormPrepared: with PrepareStmt gorm wraps the transaction.
func TestGormPrepared(t *testing.T) {
	t.Parallel()
	checkGorm(t, &gorm.Config{PrepareStmt: true}, func(ctx context.Context, tx *gorm.DB) error {
		return pglocker.Guard(ctx, tx.Statement.ConnPool.(*gorm.PreparedStmtTX).Tx.(*sql.Tx))
	})
}

func checkGorm(t *testing.T, options *gorm.Config, guard func(context.Context, *gorm.DB) error) {
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

	check(t, url, locker, func(ctx context.Context, body string, during func()) error {
		return db.WithContext(ctx).Transaction(func(tx *gorm.DB) error {
			if err := guard(ctx, tx); err != nil {
				return err
			}

			err := tx.Table("reports").Where("name = ?", "nightly").Update("body", body).Error

			during()

			return err
		})
	})
}
