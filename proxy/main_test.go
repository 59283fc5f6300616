package proxy_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"popgate/proxy/proxytest"
)

var update = flag.Bool("update", false, "rewrite the S: lines of the transcripts")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTranscripts plays testdata/*.txtar, each of which names its rules.
func TestTranscripts(t *testing.T) { proxytest.RunTranscripts(t, "testdata", *update) }

// TestMemoryBackend holds the in-memory Backend to the rules of them all.
func TestMemoryBackend(t *testing.T) {
	proxytest.TestBackend(t, proxytest.MemoryMailbox)
}
