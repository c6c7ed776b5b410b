"""Actions of experiments that are not faults themselves: fault schedules, and external activities."""
