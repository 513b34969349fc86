"""What is made from the sources of the lessons: notebooks, a classroom, a website, badges."""
