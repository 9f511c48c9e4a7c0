package pbx

func (c *Config) validate(bad func(key, format string, args ...any)) {}
