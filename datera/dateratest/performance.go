package dateratest

func viewPerformance(volume string, p *performance) entity {
	return entity{"path": volume + "/performance_policy", "total_iops_max": p.TotalIOPS, "read_iops_max": p.ReadIOPS,
		"write_iops_max": p.WriteIOPS, "total_bandwidth_max": p.TotalBandwidth, "read_bandwidth_max": p.ReadBandwidth,
		"write_bandwidth_max": p.WriteBandwidth}
}

// performance is where the volume or volume template that the path names has its policy, and the path of that volume.
func (c *call) performance() (policy **performance, path string, err error) {
	if c.variable("vt") != "" {
		v, at, err := c.volumeTemplate()
		if err != nil {
			return nil, "", err
		}
		return &v.Performance, at, nil
	}
	ai, si, v, err := c.volume()
	if err != nil {
		return nil, "", err
	}
	return &v.Performance, v.path(ai, si), nil
}

// existingPerformance is the policy, which has to be there.
func (c *call) existingPerformance() (policy **performance, path string, err error) {
	policy, path, err = c.performance()
	if err == nil && *policy == nil {
		err = notFound(path + "/performance_policy")
	}
	return policy, path, err
}

func readPerformance(c *call) (any, error) {
	policy, path, err := c.existingPerformance()
	if err != nil {
		return nil, err
	}
	return viewPerformance(path, *policy), nil
}

func createPerformance(c *call) (any, error) {
	policy, path, err := c.performance()
	if err != nil {
		return nil, err
	}
	if *policy != nil {
		return nil, conflict("%s/performance_policy exists already", path)
	}
	return c.putPerformance(policy, path, performance{})
}

func updatePerformance(c *call) (any, error) {
	policy, path, err := c.existingPerformance()
	if err != nil {
		return nil, err
	}
	return c.putPerformance(policy, path, **policy)
}

// putPerformance stores what the body makes of a policy.
func (c *call) putPerformance(policy **performance, path string, next performance) (any, error) {
	if err := c.bind(&next); err != nil {
		return nil, err
	}
	*policy = &next
	return viewPerformance(path, &next), nil
}

func deletePerformance(c *call) (any, error) {
	policy, path, err := c.existingPerformance()
	if err != nil {
		return nil, err
	}
	view := viewPerformance(path, *policy)
	*policy = nil
	return view, nil
}
