//go:build unix

package pgtesting

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// jarOf packs installed programs as the repository has them: a zip file that
// holds a tar file compressed by xz. Folders beside the programs', in which they
// look for what they need, become links.
func jarOf(t *testing.T, binDir string) []byte {
	t.Helper()
	var archive bytes.Buffer
	files := tar.NewWriter(&archive)
	for _, name := range []string{"postgres", "initdb", "pg_ctl"} {
		program, err := os.ReadFile(filepath.Join(binDir, name))
		if err != nil {
			t.Fatal(err)
		}
		// As strict as archives may be.
		if err := files.WriteHeader(&tar.Header{Name: "bin/" + name, Typeflag: tar.TypeReg, Mode: 0o700, Size: int64(len(program))}); err != nil {
			t.Fatal(err)
		}
		if _, err := files.Write(program); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"lib", "share"} {
		target := filepath.Join(filepath.Dir(binDir), name)
		if !exists(target) {
			continue
		}
		if err := files.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: target}); err != nil {
			t.Fatal(err)
		}
	}
	if err := files.Close(); err != nil {
		t.Fatal(err)
	}

	var jar bytes.Buffer
	writer := zip.NewWriter(&jar)
	// Stored, for the speed of the tests under the race detector.
	entry, err := writer.CreateHeader(&zip.FileHeader{Name: "postgres-test.txz", Method: zip.Store})
	if err == nil {
		_, err = entry.Write(xzStored(archive.Bytes()))
	}
	if err == nil {
		err = writer.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return jar.Bytes()
}

// xzStored wraps data in the xz format without compressing it, which the
// standard library can't: one block of uncompressed LZMA2 chunks.
func xzStored(data []byte) []byte {
	var out bytes.Buffer
	sum := func(b []byte) []byte { return binary.LittleEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)) }
	pad := func(b []byte) []byte { return append(b, make([]byte, -len(b)&3)...) }

	flags := []byte{0, 1} // the check is a CRC32
	out.Write([]byte{0xfd, '7', 'z', 'X', 'Z', 0})
	out.Write(flags)
	out.Write(sum(flags))

	// Size 12 (2+1 words), no flags: one filter, LZMA2, with a byte of properties.
	header := pad([]byte{2, 0, 0x21, 1, 0x16, 0, 0, 0})
	block := out.Len()
	out.Write(header)
	out.Write(sum(header))
	first := byte(1) // the first chunk resets the dictionary
	for rest := data; len(rest) > 0; first = 2 {
		chunk := rest[:min(len(rest), 1<<16)]
		rest = rest[len(chunk):]
		out.WriteByte(first)
		out.Write(binary.BigEndian.AppendUint16(nil, uint16(len(chunk)-1)))
		out.Write(chunk)
	}
	out.WriteByte(0)
	size := out.Len() - block
	out.Write(make([]byte, -size&3))
	out.Write(sum(data))
	size += 4

	index := binary.AppendUvarint([]byte{0, 1}, uint64(size))
	index = pad(binary.AppendUvarint(index, uint64(len(data))))
	index = append(index, sum(index)...)
	out.Write(index)
	footer := binary.LittleEndian.AppendUint32(nil, uint32(len(index)/4-1))
	footer = append(footer, flags...)
	out.Write(sum(footer))
	out.Write(footer)
	out.WriteString("YZ")
	return out.Bytes()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	// Whatever the umask is.
	if err := os.Chmod(to, 0o755); err != nil {
		t.Fatal(err)
	}
}
