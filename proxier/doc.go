// Package proxier keeps the kernel equal to what Services and endpoints ask for.
//
//	lb.Sink calls --> tracker --wake--> loop: debounce --> sync: take, render, diff, apply
//	                                      |--> retry of what failed, with backoff
//	                                      |--> drain of real servers whose connections ended
//	                                      '--> verify: kernel against shadow, every sync period
//
// One goroutine owns the model, the shadow of the kernel and every kernel call; there is nothing to lock but the
// tracker. A change costs what the changed Service costs: no step on its way looks at other Services.
package proxier
