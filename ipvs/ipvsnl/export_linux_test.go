package ipvsnl

// SetProcFrom makes Dump read /proc from so many virtual servers on.
func (t *Table) SetProcFrom(n int) { t.procFrom = n }

// HasProc reports whether Dump can read /proc.
func (t *Table) HasProc() bool { return t.proc != nil }
