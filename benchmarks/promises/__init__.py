"""Truth of printed sentences: accuracy, advice, incumbents, rejections, and promises under load."""
