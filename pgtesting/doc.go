// Package pgtesting gives integration tests PostgreSQL databases: each test its
// own, on a server that is there or on one that the package starts.
//
// A program's TestMain makes a [TestInstance], and each test asks it for a
// database:
//
//	var databases *pgtesting.TestInstance
//
//	func TestMain(m *testing.M) {
//		databases = pgtesting.MustTestInstance(&pgtesting.TestInstanceConfig{
//			DriverName:  "pgx", // import _ "github.com/jackc/pgx/v5/stdlib"
//			DatabaseURL: os.Getenv("CI_DATABASE_URL"),
//			MigrateFunc: func(ctx context.Context, _ *url.URL, db *sql.DB) error {
//				_, err := db.ExecContext(ctx, `CREATE TABLE songs (title text)`)
//				return err
//			},
//		})
//		code := m.Run()
//		databases.MustClose()
//		os.Exit(code)
//	}
//
//	func TestSongs(t *testing.T) {
//		t.Parallel()
//		db := databases.Open(t, databases.NewDatabase(t).String())
//		// ...
//	}
//
// There are three layers, each usable without those above it:
//
//   - [Server], from [StartServer], is a PostgreSQL server that lives no longer
//     than the process that started it and leaves nothing behind. It can be
//     frozen, thawed, killed and started again, for tests of what survives that.
//   - [TestDatabaseFactory] migrates one template database and copies it for each
//     test, which takes PostgreSQL tens of milliseconds whatever the migration
//     took. A copy is dropped when its test ends.
//   - [TestInstance] joins the two for TestMain, and skips tests under -short.
//
// PostgreSQL 12 to 18 work, with the drivers pgx and lib/pq. Throwaway servers
// need a Unix system; a given server can be used from anywhere.
package pgtesting
