//go:build race

package micro

const raced = true
