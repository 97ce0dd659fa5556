package pglocker_test

import (
	"testing"

	"github.com/ismurov/pglocker/internal/contract"
)

func TestMain(m *testing.M) { contract.Main(m, 8) }
