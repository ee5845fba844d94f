"""Who calls: accounts, how they are proven, and what they are given to show for it."""
