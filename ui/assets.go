package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"net/http"
	"sync"
	"time"
)

//go:embed static
var assetFiles embed.FS

// assets are the files of a page, by name.
var assets = sync.OnceValue(func() map[string][]byte {
	files, err := assetFiles.ReadDir("static")
	if err != nil {
		panic(err)
	}

	all := map[string][]byte{}

	for _, file := range files {
		if all[file.Name()], err = assetFiles.ReadFile("static/" + file.Name()); err != nil {
			panic(err)
		}
	}

	return all
})

// version changes with any asset. It is in their addresses, so browsers may keep them.
var version = sync.OnceValue(func() string {
	hash := sha256.New()
	for _, name := range []string{"app.js", "icon.svg", "style.css"} {
		hash.Write(assets()[name])
	}

	return hex.EncodeToString(hash.Sum(nil)[:6])
})

func assetURL(name string) string { return "static/" + name + "?v=" + version() }

func asset(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")

	text, ok := assets()[name]
	if !ok {
		http.NotFound(w, r)

		return
	}

	if r.URL.Query().Get("v") == version() {
		w.Header().Set("Cache-Control", "private, max-age=31536000, immutable")
	}

	http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(text))
}
