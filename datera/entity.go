package datera

import (
	"context"
	"errors"
	"fmt"
)

// An answer is believed when it is about the entity that was asked for, and says what was asked. These three see to it for
// whatever is read, made or changed.

// fetch reads an entity, which must be the one asked for.
func fetch[T any](ctx context.Context, c *Client, r request, is func(*T) error) (*T, error) {
	r.method = get
	entity := new(T)
	if _, err := c.do(ctx, r, entity); err != nil {
		return nil, err
	}
	if err := is(entity); err != nil {
		return nil, c.unclear(r, err)
	}
	return entity, nil
}

// create makes a POST and falls back to reading what is there: when the array says that the name is taken, and when the
// answer was lost or is about something else, which leaves open whether the request was carried out. What is lost and not
// there is asked for once more.
func create[T any](ctx context.Context, c *Client, r request, is func(*T) error, read func() (*T, error)) (entity *T, created bool, err error) {
	r.method = post
	for attempt := 1; ; attempt++ {
		entity = new(T)
		if _, err = c.do(ctx, r, entity); err == nil {
			other := is(entity)
			if other == nil {
				return entity, true, nil
			}
			err = c.unclear(r, other)
		}
		lost := errors.Is(err, errLost)
		if !lost && !errors.Is(err, errUnclear) && !errors.Is(err, ErrConflict) {
			return nil, false, err
		}
		there, readErr := read()
		switch {
		case readErr == nil:
			return there, false, nil
		case lost && attempt == 1 && errors.Is(readErr, ErrNotFound):
		default:
			return nil, false, fmt.Errorf("%w; then %w", err, readErr)
		}
	}
}

// change makes a change and returns the entity that shows it: the answer, if that is the entity, or else what is read
// afterwards, also when the array found fault with the request, perhaps because it is so already.
func change[T any](ctx context.Context, c *Client, r request, shows func(*T) error, read func() (*T, error)) (*T, error) {
	entity := new(T)
	_, err := c.do(ctx, r, entity)
	switch {
	case err == nil && shows(entity) == nil:
		return entity, nil
	case err != nil && !errors.Is(err, errUnclear) && !isRefusal(err) && !IsNotFound(err):
		return nil, err
	}
	there, readErr := read()
	if readErr != nil {
		return nil, errors.Join(err, readErr)
	}
	if unchanged := shows(there); unchanged != nil {
		return nil, errors.Join(err, fmt.Errorf("after %s: %w", c.name(r), unchanged))
	}
	return there, nil
}
