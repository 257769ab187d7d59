// Package archtest asserts the structure that docs/architecture.md draws. All of it is tests.
package archtest
