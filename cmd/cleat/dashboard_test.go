package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
)

// promised finds the metrics and labels that a document speaks of.
var (
	promisedMetric = regexp.MustCompile(`\b(?:kv|raft|storage|gnatsd|jetstream|process|go|cleat)_[a-z0-9_]+`)
	promisedLabels = regexp.MustCompile(`\bby \(([a-z_, ]+)\)|\bgroup_right \(([a-z_, ]*)\)`)
)

// Every metric that the dashboard and the alerts ask for is there.
func TestDashboardMetrics(t *testing.T) {
	p := startProcess(t, t.TempDir())
	js, err := jetstream.New(p.connect())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "B"}); err != nil {
		t.Fatal(err)
	}
	_, metrics := p.get("/metrics")
	docs := filepath.Join("..", "..", "docs")
	exprs := alertExprs(t, filepath.Join(docs, "monitoring.md"))
	dashboard := dashboardExprs(t, filepath.Join(docs, "grafana.json"))
	if len(exprs) < 5 || len(dashboard) < 20 {
		t.Fatalf("%d alerts and %d queries found", len(exprs), len(dashboard))
	}
	for _, expr := range slices.Concat(exprs, dashboard) {
		names := promisedMetric.FindAllString(expr, -1)
		if len(names) == 0 {
			t.Errorf("%s: no metric", expr)
		}
		for _, name := range names {
			line := regexp.MustCompile(`(?m)^` + name + `[{ ].*`).FindString(metrics)
			if line == "" {
				t.Errorf("%s: there is no %s", expr, name)
				continue
			}
			for _, by := range promisedLabels.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(by[1]+by[2], ",") {
					if label = strings.TrimSpace(label); label != "" && !strings.Contains(line, label+`="`) {
						t.Errorf("%s: %s has no label %s: %s", expr, name, label, line)
					}
				}
			}
		}
	}
}

func alertExprs(t *testing.T, file string) (exprs []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, expr, ok := strings.Cut(line, " expr: "); ok {
			exprs = append(exprs, strings.TrimSpace(expr))
		}
	}
	return exprs
}

func dashboardExprs(t *testing.T, file string) (exprs []string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		Panels []struct {
			Title   string `json:"title"`
			Type    string `json:"type"`
			Targets []struct {
				Expr string `json:"expr"`
			} `json:"targets"`
		} `json:"panels"`
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Panels {
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("panel %q shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			exprs = append(exprs, target.Expr)
		}
	}
	return exprs
}
