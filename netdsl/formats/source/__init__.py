"""What the writers of Python source share: the net as classes or functions, for each block one."""
