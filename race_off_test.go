//go:build !race

package pglocker_test

const raceDetector = false
