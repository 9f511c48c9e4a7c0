// Package desk is the people who answer: agents and opening hours.
package desk
