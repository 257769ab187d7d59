package storage

import (
	"context"
	"time"
)

// Collect deletes objects under prefix that used does not claim and that are older than grace:
// younger ones may be about to be named by a row. It returns what it deleted.
func Collect(ctx context.Context, objs Objects, prefix string, used func(key string) bool, grace time.Duration, now time.Time) ([]ObjectInfo, error) {
	var deleted []ObjectInfo
	for info, err := range objs.List(ctx, prefix) {
		if err != nil {
			return deleted, err
		}
		if used(info.Key) || now.Sub(info.Modified) < grace {
			continue
		}
		if err := objs.Delete(ctx, info.Key); err != nil {
			return deleted, err
		}
		deleted = append(deleted, info)
	}
	return deleted, nil
}
