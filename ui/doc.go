// Package ui is a web page that shows the locks of one table: an [http.Handler] that a program mounts in its own
// mux. The command `pglocker web` serves the same page.
//
// A Handler reads the table by the public methods of a [pglocker.Locker]. Each page that is being watched is read
// by one goroutine for all its viewers (hub.go). It ends when the last viewer has left. Viewers get the new state
// by server-sent events (stream.go). Without JavaScript the same pages are plain HTML.
//
// Nothing is written, unless [Options.AllowRelease] is set: then a lock can be released by force (release.go).
package ui
