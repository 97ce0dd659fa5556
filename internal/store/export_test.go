package store

// TextArray and BigintArray are for tests on a server.
var (
	TextArray   = textArray
	BigintArray = bigintArray
)
