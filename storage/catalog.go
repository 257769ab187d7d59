package storage

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/foretoken/foretoken/internal/errs"
)

// Catalog is the rows that name objects: bundles, dataset versions, runs, prompts, keys. It is
// one SQLite file behind one connection, which the job queue shares: SQLite has one writer, and
// a second pool would starve it. It is safe for concurrent use by one process.
type Catalog struct {
	db *sql.DB
}

//go:embed migrations/*.sql
var migrations embed.FS

// OpenCatalog opens the file at path, makes it where it is missing, and brings its tables up
// to date.
func OpenCatalog(ctx context.Context, path string) (*Catalog, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	options := url.Values{"_pragma": {"journal_mode(WAL)", "busy_timeout(5000)", "foreign_keys(1)", "synchronous(FULL)"}, "_txlock": {"immediate"}}
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: path}).EscapedPath()+"?"+options.Encode())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	c := &Catalog{db}
	if err := c.migrate(ctx); err != nil {
		db.Close()
		return nil, fmt.Errorf("catalogue %s: %w", path, err)
	}
	return c, nil
}

// DB is the connection that the job queue shares.
func (c *Catalog) DB() *sql.DB { return c.db }

// Close closes the file.
func (c *Catalog) Close() error { return c.db.Close() }

// migrate applies the migrations that the file has not had, each in a transaction of its own.
// A file from a newer program is refused.
func (c *Catalog) migrate(ctx context.Context) error {
	files, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var version int
	if err := c.db.QueryRowContext(ctx, "PRAGMA user_version").Scan(&version); err != nil {
		return err
	}
	if version > len(files) {
		return errs.New(errs.Unsupported, "its tables are of version %d, this program knows %d: use a newer one", version, len(files))
	}
	for ; version < len(files); version++ {
		script, err := migrations.ReadFile(files[version])
		if err != nil {
			return err
		}
		err = c.Tx(ctx, func(tx *sql.Tx) error {
			_, err := tx.ExecContext(ctx, string(script)+fmt.Sprintf("\nPRAGMA user_version = %d;", version+1))
			return err
		})
		if err != nil {
			return fmt.Errorf("%s: %w", files[version], err)
		}
	}
	return nil
}

// Tx calls f in a transaction, and commits when it returns nil. f must use the transaction
// alone: there is no second connection.
func (c *Catalog) Tx(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := c.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() // after Commit it does nothing
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Bundle is a frozen model that was added.
type Bundle struct {
	Name    string
	Digest  string
	Dir     string
	Created time.Time
}

// PutBundle adds a bundle. A name that stands for another digest is a conflict.
func (c *Catalog) PutBundle(ctx context.Context, b Bundle) error {
	old, err := c.Bundle(ctx, b.Name)
	if err == nil && old.Digest != b.Digest {
		return errs.New(errs.Conflict, "bundle %q exists already with the digest %s, the one given has %s: choose another name", b.Name, old.Digest, b.Digest)
	}
	_, err = c.db.ExecContext(ctx, `INSERT INTO bundles (name, digest, dir, created) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET dir = excluded.dir`, b.Name, b.Digest, b.Dir, b.Created.UnixMilli())
	return err
}

// Bundle finds a bundle by name.
func (c *Catalog) Bundle(ctx context.Context, name string) (Bundle, error) {
	return one(ctx, c.db, scanBundle, fmt.Sprintf("bundle %q", name), bundleColumns+" WHERE name = ?", name)
}

// Bundles lists all bundles by name.
func (c *Catalog) Bundles(ctx context.Context) ([]Bundle, error) {
	return all(ctx, c.db, scanBundle, bundleColumns+" ORDER BY name")
}

const bundleColumns = "SELECT name, digest, dir, created FROM bundles"

func scanBundle(row scanner) (b Bundle, err error) {
	var created int64
	err = row.Scan(&b.Name, &b.Digest, &b.Dir, &created)
	b.Created = time.UnixMilli(created).UTC()
	return b, err
}

// DatasetVersion is an immutable list of images, whose manifest is an object.
type DatasetVersion struct {
	Name    string
	Version string // digest
	Images  int
	Classes int
	Created time.Time
}

// AddVersion names a stored version, or makes it the latest again.
func (c *Catalog) AddVersion(ctx context.Context, v DatasetVersion) error {
	_, err := c.db.ExecContext(ctx, `INSERT INTO datasets (name, version, images, classes, created) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name, version) DO UPDATE SET created = excluded.created`, v.Name, v.Version, v.Images, v.Classes, v.Created.UnixMilli())
	return err
}

// Version finds a version of a dataset; "" is the latest.
func (c *Catalog) Version(ctx context.Context, name, version string) (DatasetVersion, error) {
	what := fmt.Sprintf("dataset %q", name)
	if version != "" {
		what += " version " + version
	}
	return one(ctx, c.db, scanVersion, what, versionColumns+" WHERE name = ? AND (? = '' OR version = ?) ORDER BY created DESC, rowid DESC LIMIT 1", name, version, version)
}

// Versions lists all versions of all datasets, the latest of each first.
func (c *Catalog) Versions(ctx context.Context) ([]DatasetVersion, error) {
	return all(ctx, c.db, scanVersion, versionColumns+" ORDER BY name, created DESC, rowid DESC")
}

const versionColumns = "SELECT name, version, images, classes, created FROM datasets"

func scanVersion(row scanner) (v DatasetVersion, err error) {
	var created int64
	err = row.Scan(&v.Name, &v.Version, &v.Images, &v.Classes, &created)
	v.Created = time.UnixMilli(created).UTC()
	return v, err
}

// Key is an API key; the key itself is not kept.
type Key struct {
	ID      string
	Name    string
	Hash    string // SHA-256, hexadecimal
	Created time.Time
	Revoked bool
}

// AddKey stores a key.
func (c *Catalog) AddKey(ctx context.Context, k Key) error {
	_, err := c.db.ExecContext(ctx, "INSERT INTO keys (id, name, hash, created) VALUES (?, ?, ?, ?)", k.ID, k.Name, k.Hash, k.Created.UnixMilli())
	return conflict(err, "key %q", k.ID)
}

// KeyByHash finds a key that is not revoked.
func (c *Catalog) KeyByHash(ctx context.Context, hash string) (Key, error) {
	return one(ctx, c.db, scanKey, "key", keyColumns+" WHERE hash = ? AND NOT revoked", hash)
}

// Keys lists all keys, the oldest first.
func (c *Catalog) Keys(ctx context.Context) ([]Key, error) {
	return all(ctx, c.db, scanKey, keyColumns+" ORDER BY created, id")
}

// RevokeKey ends a key's use, by its id.
func (c *Catalog) RevokeKey(ctx context.Context, id string) error {
	return c.change(ctx, fmt.Sprintf("key %q", id), "UPDATE keys SET revoked = 1 WHERE id = ?", id)
}

const keyColumns = "SELECT id, name, hash, created, revoked FROM keys"

func scanKey(row scanner) (k Key, err error) {
	var created int64
	err = row.Scan(&k.ID, &k.Name, &k.Hash, &created, &k.Revoked)
	k.Created = time.UnixMilli(created).UTC()
	return k, err
}

// scanner is a row of one query or of many.
type scanner interface{ Scan(into ...any) error }

// querier is the database or a transaction.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

func one[T any](ctx context.Context, q querier, scan func(scanner) (T, error), what, query string, args ...any) (T, error) {
	v, err := scan(q.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return v, errs.New(errs.NotFound, "there is no %s", what)
	}
	return v, err
}

func all[T any](ctx context.Context, q querier, scan func(scanner) (T, error), query string, args ...any) ([]T, error) {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []T{}
	for rows.Next() {
		v, err := scan(rows)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	return list, rows.Err()
}

// change runs a statement that has to hit a row.
func (c *Catalog) change(ctx context.Context, what, statement string, args ...any) error {
	result, err := c.db.ExecContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	if n, err := result.RowsAffected(); err != nil || n == 0 {
		return errors.Join(err, errs.New(errs.NotFound, "there is no %s", what))
	}
	return nil
}

// conflict gives a violated uniqueness its kind.
func conflict(err error, format string, args ...any) error {
	var e *sqlite.Error
	if errors.As(err, &e) && (e.Code() == sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY || e.Code() == sqlite3.SQLITE_CONSTRAINT_UNIQUE) {
		return errs.New(errs.Conflict, "%s exists already", fmt.Sprintf(format, args...))
	}
	return err
}
