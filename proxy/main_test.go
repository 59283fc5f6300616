package proxy_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"

	"popgate/proxy/proxytest"
)

var update = flag.Bool("update", false, "rewrite the S: lines of the transcripts")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestTranscripts plays testdata/*.txtar, each of which names its requirements.
func TestTranscripts(t *testing.T) { proxytest.RunTranscripts(t, "testdata", *update) }

// TestMemoryBackend runs the conformance suite on the in-memory Backend.
func TestMemoryBackend(t *testing.T) {
	proxytest.TestBackend(t, proxytest.MemoryMailbox)
}
