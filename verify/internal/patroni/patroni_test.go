package patroni

import "testing"

// TestBelongs: a keeper ends the processes of its own cluster, and nobody else's.
func TestBelongs(t *testing.T) {
	t.Parallel()

	const folder = "/tmp/" + folderPrefix + "12"

	for commandLine, want := range map[string]bool{
		"/usr/bin/python3 /usr/bin/patroni " + folder + "/n1.json ":       true,
		"/usr/lib/postgresql/15/bin/postgres -D " + folder + "/n1/data ":  true,
		"postgres: " + folderPrefix + "12: walwriter ":                    true,
		"/usr/lib/postgresql/15/bin/postgres -D " + folder + "3/n1/data ": false,
		"postgres: " + folderPrefix + "123: walwriter ":                   false,
		"postgres: 15/main: walwriter ":                                   false,
		"grep postgres: " + folderPrefix + "12: walwriter ":               false,
		"": false,
	} {
		if got := belongs(commandLine, folder); got != want {
			t.Errorf("%q belongs: %t, want %t", commandLine, got, want)
		}
	}
}
