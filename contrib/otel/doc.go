// Package pglockerotel makes OpenTelemetry's metrics and spans of what pglocker does.
//
//	observer, err := pglockerotel.NewObserver()
//	locker, err := pglocker.New(db, &pglocker.Config{Observer: observer})
//
// One observer may serve several Lockers. docs/observability.md says what each metric means. grafana/pglocker.json
// is a dashboard of them, and prometheus/alerts.yml has the alerts.
//
// Every metric has few series: a lock's id gets into a label only through [WithClass].
package pglockerotel
