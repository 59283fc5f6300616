package certificates

import (
	"bytes"
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy/proxytest"
)

// A gateway that runs for months warns daily of a certificate that nobody has
// renewed.
func TestExpiryDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		proxytest.NewCertificate(t, proxytest.CertificateOptions{Until: time.Now().AddDate(0, 0, 30)}).WriteFiles(t, dir)
		p, err := ReadPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		ctx, cancel := context.WithTimeout(t.Context(), 32*24*time.Hour+time.Hour)
		defer cancel()
		WarnDaily(ctx, []*Pair{p}, slog.New(slog.NewTextHandler(&log, nil)))
		soon, over := strings.Count(log.String(), "certificate expires within 14 days"), strings.Count(log.String(), "certificate has expired")
		if soon != 14 || over != 2 || !strings.Contains(log.String(), "cert_file="+filepath.Join(dir, "cert.pem")+" on=2000-01-31") {
			t.Errorf("%d and %d warnings:\n%s", soon, over, log.String())
		}
	})
}
