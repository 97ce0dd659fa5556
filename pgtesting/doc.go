// Package pgtesting gives each integration test a PostgreSQL database of its own, on a given
// server or on one that the package starts.
//
// TestMain makes a [TestInstance], and each test takes a database from it:
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
//   - [Server] is a PostgreSQL server that ends with the process that started it, and leaves
//     no file behind. Tests can freeze, thaw, kill and restart it.
//   - [TestDatabaseFactory] migrates one template database and copies it for each test. A
//     copy takes PostgreSQL tens of milliseconds, and is dropped when its test ends.
//   - [TestInstance] joins the two for TestMain, and skips tests under -short.
//
// PostgreSQL 12 to 18 work, with the drivers pgx and lib/pq. [StartServer] needs a Unix
// system; a given server can be used from any system.
package pgtesting
