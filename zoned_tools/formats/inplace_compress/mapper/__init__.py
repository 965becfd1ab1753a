"""Offline model of the target: reads, writes in windows, metadata policies, counters.

``open`` the logical device, ``read`` its content, ``write`` changes in windows, ``commit`` the bitmap;
``copying`` writes the whole content to a file over several processes.
"""
