package testbed

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Metrics reads a Prometheus endpoint as the host sees it, such as http://127.0.0.1:10249/metrics, and returns the
// sum of every series of each metric name.
func (h *Host) Metrics(ctx context.Context, url string) (map[string]float64, error) {
	series, err := h.Series(ctx, url)
	if err != nil {
		return nil, err
	}
	sums := map[string]float64{}
	for s, v := range series {
		name, _, _ := strings.Cut(s, "{")
		sums[name] += v
	}
	return sums, nil
}

// Series is Metrics with every series by itself, under its name and labels as they are served.
func (h *Host) Series(ctx context.Context, url string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", h.Name, err)
	}
	// Packing the text would cost the process more than gathering it, and be part of what is measured.
	req.Header.Set("Accept-Encoding", "identity")
	resp, err := h.HTTP().Do(req)
	if err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", h.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("metrics of %s: %s", h.Name, resp.Status)
	}
	series := map[string]float64{}
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		line := lines.Text()
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
			series[line[:end]] = v
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("metrics of %s: %w", h.Name, err)
	}
	return series, nil
}
