package main

import (
	"context"
	"time"

	"authserver/store"

	"github.com/prometheus/client_golang/prometheus"
)

// clockOffset is the metric of how far the store's clock is ahead of this machine's: it
// shows a clock that drifts long before the store is not used any more for it. It is
// measured when it is asked for, and is missing while the store does not answer.
type clockOffset struct{ clock store.Clock }

var clockOffsetMetric = prometheus.NewDesc("authserver_store_clock_offset_seconds",
	"How far the clock of the store is ahead of this machine's; negative when it is behind.", nil, nil)

// Describe implements prometheus.Collector.
func (c clockOffset) Describe(described chan<- *prometheus.Desc) { described <- clockOffsetMetric }

// Collect implements prometheus.Collector.
func (c clockOffset) Collect(collected chan<- prometheus.Metric) {
	before := time.Now().Round(0) // as it is on the wall
	at, err := c.clock.Clock(context.Background())
	if err != nil {
		return
	}
	asked := before.Add(time.Now().Round(0).Sub(before) / 2)
	collected <- prometheus.MustNewConstMetric(clockOffsetMetric, prometheus.GaugeValue, at.Sub(asked).Seconds())
}
