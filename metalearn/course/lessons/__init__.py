"""The exercises and quizzes of the lessons: one module `lesson_NN` for each."""
