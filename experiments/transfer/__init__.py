"""The experiment of this project: does an agent that learned in one field adapt to another within a few episodes?"""
