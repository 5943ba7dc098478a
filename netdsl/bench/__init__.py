"""Our CPU engine side by side with others: the same net, weights, inputs and threads.

Engines other than ours come with the extra `bench`. `compare.compare` does a net, `peak.peak`
measures what the machine can do.
"""
